"""Files for phones: LiteRT (`.tflite`) and ncnn, both made from the PyTorch twin."""
