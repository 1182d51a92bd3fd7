"""The configuration you edit: model_config.py and server_config.py."""
