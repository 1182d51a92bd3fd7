"""What every worker shares: registration, beats, admission, HTTP surfaces, engine interface."""
