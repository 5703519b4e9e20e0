"""The try-on engine: a person and garments as pictures in, one picture out. It knows nothing of jobs or folders."""
