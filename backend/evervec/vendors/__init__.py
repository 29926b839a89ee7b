"""One HTTP client a vendor, and what its refusals mean; embedders and extractors are built on them."""
