"""What people look at: skeletons, figures, the report's page, controls of notebooks."""
