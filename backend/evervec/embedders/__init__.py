"""One file per embedding provider, behind the `Embedder` protocol and one behaviour suite."""
