"""One HTTP client a vendor, and the errors that its refusals mean; embedders and extractors use them."""
