"""The embedders, a folder a vendor, behind the `Embedder` protocol and one behaviour suite."""
