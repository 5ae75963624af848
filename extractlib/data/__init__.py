"""Image sets, and where they come from: drawn, published, or in a folder of image files.

A layout is read into a `Listing`, which says what images there are, of which class and in which split; `decode` brings
a listing's images to one size, once, and maps them into memory from then on.
"""

from extractlib.data.decoding import ImageFiles, decode, read_image
from extractlib.data.groups import near_duplicate_groups
from extractlib.data.layouts import POOLS, TASKS, Listing, folder, listing, register
from extractlib.data.transforms import shift_domain

__all__ = [
    "POOLS",
    "TASKS",
    "ImageFiles",
    "Listing",
    "decode",
    "folder",
    "listing",
    "near_duplicate_groups",
    "read_image",
    "register",
    "shift_domain",
]
