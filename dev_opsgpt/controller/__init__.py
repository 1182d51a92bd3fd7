"""The controller: knows which workers are alive, tells gateways, and starts and stops models."""
