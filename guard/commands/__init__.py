"""The commands of `cryptomnesia`, one file each; none loads torch before it has looked at its arguments."""
