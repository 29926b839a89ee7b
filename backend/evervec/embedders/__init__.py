"""The embedders, a folder a vendor, behind the `Embedder` protocol and one behaviour suite."""

import os
from typing import Final

NO_REPORTS: Final = "ORT_DISABLE_TELEMETRY"
NO_HUB_REPORTS: Final = "HF_HUB_DISABLE_TELEMETRY"

# read once, by the import of onnxruntime: else it keeps a file in the folder for temporary ones, and reports its use to its maker
os.environ[NO_REPORTS] = "1"
# read once as well, by the import of huggingface_hub; sentence-transformers and transformers report through it
os.environ[NO_HUB_REPORTS] = "1"
