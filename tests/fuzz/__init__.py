"""The HTTP surface under requests that nobody means well with."""
