"""What happens to images on the device, inside the compiled step."""
