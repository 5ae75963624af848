"""Photographs on disk: published data sets in their own layout, and any folder of images.

A layout is read into a `Listing`, which says what images there are, of which class and in which half; `decoded` brings
a listing's images to one size, once, and maps them into memory from then on.
"""

from extractlib.data.decoding import Photographs, decoded, look_alikes, read_image
from extractlib.data.layouts import POOLS, TASKS, Entry, Listing, folder, listing
from extractlib.data.shifting import shifted

__all__ = [
    "POOLS",
    "TASKS",
    "Entry",
    "Listing",
    "Photographs",
    "decoded",
    "folder",
    "listing",
    "look_alikes",
    "read_image",
    "shifted",
]
