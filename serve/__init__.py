"""The fourth stage: answers HTTP requests with a published bundle."""
