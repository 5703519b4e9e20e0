"""fastfit-watch: dress people in uploaded garments, unattended."""
