"""What this machine can do for ragrig, and what to install to let it do more."""
