"""electra: train text encoders by replaced-token detection, from raw text to a fine-tuned model."""

__version__ = "0.1.0"
