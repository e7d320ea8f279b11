"""Image-text contrastive models."""
