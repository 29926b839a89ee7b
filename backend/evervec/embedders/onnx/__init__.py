"""Embedding with a sentence encoder by onnxruntime or numpy: of a folder, or of a wheel; nothing is ever downloaded."""
