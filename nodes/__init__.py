"""ComfyUI nodes: thin, one file each; they convert, ask `guard`, and convert back."""
