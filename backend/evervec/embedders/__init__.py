"""The embedders, a folder a vendor, behind the `Embedder` protocol and one behaviour suite."""

import os
from typing import Final

NO_REPORTS: Final = "ORT_DISABLE_TELEMETRY"

# read once, by the import of onnxruntime: else it keeps a file in the folder for temporary ones, and reports its use to its maker
os.environ[NO_REPORTS] = "1"
