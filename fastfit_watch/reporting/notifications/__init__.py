"""What is sent when a job ends: the payload, the webhook, the hook."""
