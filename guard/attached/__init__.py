"""Guarded generation: a pipeline's own call, checked at its first step, and mitigated where the policy says so."""
