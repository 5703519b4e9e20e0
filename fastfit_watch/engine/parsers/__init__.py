"""The released human parsers, rewritten: DWPose (skeleton), DensePose (body surface) and SCHP (clothing labels)."""
