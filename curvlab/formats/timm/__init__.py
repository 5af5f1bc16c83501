"""timm model directories."""
