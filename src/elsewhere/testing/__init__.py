"""What authors of backends and the project's own tests share: a product, not scaffolding."""
