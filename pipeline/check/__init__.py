"""Check packages without installing them; see checker.Checker."""
