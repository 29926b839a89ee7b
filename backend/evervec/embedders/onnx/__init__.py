"""Embedding with a sentence encoder in this process: of a folder, or of a wheel; nothing is ever downloaded, or told to anybody."""

import os
from typing import Final

NO_REPORTS: Final = "ORT_DISABLE_TELEMETRY"

# read once, by the import of onnxruntime: else it keeps a file in the folder for temporary ones, and reports its use to its maker
os.environ[NO_REPORTS] = "1"
