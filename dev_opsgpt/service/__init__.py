"""The model service: the seed's command and its extension point for providers."""
