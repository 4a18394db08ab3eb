"""What a person asks for: each operation is a pipeline or a reading, over the ports."""
