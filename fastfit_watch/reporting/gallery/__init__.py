"""The static gallery in `outputs/`: a front page, an archive of all jobs, and pages for each job. Needs no server."""

from __future__ import annotations

from fastfit_watch.reporting.gallery.front_page import ARCHIVE_FOLDER
from fastfit_watch.reporting.gallery.publish import Gallery
from fastfit_watch.reporting.gallery.thread import GalleryThread

__all__ = ["ARCHIVE_FOLDER", "Gallery", "GalleryThread"]
