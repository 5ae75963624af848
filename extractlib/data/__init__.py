"""Image sets, and where they come from: drawn, published, or in a folder of image files.

`layouts` read a folder into a listing, which says what images there are, of which class and in which split; `decoding`
brings a listing's images to one size, once, and maps them into memory from then on; `sources` hand them out in parts.
"""
