"""Pages for people: self-contained HTML, no scripts, nothing loaded from elsewhere."""
