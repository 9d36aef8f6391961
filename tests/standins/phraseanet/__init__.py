"""A stand-in of Phraseanet: an ApplicationBox, DataBoxes, documents, an index, and a queue for thumbnails."""
