"""The static gallery in `outputs/`: a front page, shelves of older jobs, and pages for each job. Needs no server."""

from __future__ import annotations

from fastfit_watch.reporting.gallery.frontpage import SHELF_FOLDER
from fastfit_watch.reporting.gallery.publish import Gallery
from fastfit_watch.reporting.gallery.thread import GalleryThread

__all__ = ["SHELF_FOLDER", "Gallery", "GalleryThread"]
