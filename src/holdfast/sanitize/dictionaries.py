"""The words that replace names, addresses and texts. They are chosen here; none is a real person's or company's."""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FIRST_NAMES = _words(
    "Ada Aiko Alma Amir Anouk Arlo Asha Bela Bruno Cato Cleo Dana Dario Edda Elio Emil Enya Fay Finn Flora Gus"
    " Hana Hugo Ida Ilja Ines Iris Ivo Jana Jules Kai Kira Lena Leo Lio Lola Luca Mara Mika Mila Nadia Nico"
    " Nils Nora Odin Olga Otis Pia Quinn Rafi Remy Rosa Sami Sina Taro Tilda Uma Vera Vito Wanda Yara Yuri Zeno"
    " Zoe"
)
LAST_NAMES = _words(
    "Abel Adler Anders Arden Baker Barlow Becker Berg Brook Carver Castel Cole Dale Dorn Draper Ekman Ellis Falk Fisher"
    " Forest Gale Garner Glover Grant Haller Harper Hill Holm Hunter Ivers Jansen Keller Kern Lake Lang Linde Marsh"
    " Mercer Miller Moss Nord Olsen Palmer Parker Penn Porter Quill Reed Ritter Rowan Sailer Sandor Shore Stone Tanner"
    " Thorne Vale Vogel Walker Weaver West Winter Wood York"
)
COMPANIES = tuple(
    f"{word} {form}"
    for form in ("Ltd", "Group", "Works", "Partners")
    for word in _words(
        "Acorn Beacon Cedar Delta Ember Fjord Granite Harbor Indigo Juniper Kite Lantern Maple Nimbus Orchard"
    )
)
CITIES = _words(
    "Alderford Birchwick Clearwater Dunmore Eastvale Fernhill Glenmoor Highgrove Ironbridge Kingsmead Lakeside"
    " Millbrook Northhaven Oakdale Pinewood Ravenport Silverton Thornbury Westmere Willowby"
)
STREETS = tuple(
    f"{number} {word} {kind}"
    for number in (1, 7, 12, 23, 38, 41)
    for word in _words("Apple Birch Chapel Depot Elm Fair Garden Hill Mill Station")
    for kind in ("Street", "Road")
)
NAMES = tuple(f"{first} {last}" for first, last in zip(FIRST_NAMES, LAST_NAMES, strict=False))
WORDS = {
    "first_name": FIRST_NAMES,
    "last_name": LAST_NAMES,
    "name": NAMES,
    "company": COMPANIES,
    "city": CITIES,
    "street": STREETS,
}
FILLER = "This text takes the place of another one, which is not part of this copy. "
BLANK_PNG = bytes.fromhex(
    "89504e470d0a1a0a0000000d4948445200000001000000010804000000b51c0c020000000b4944415478da6364600000000600023081d02f0000"
    "000049454e44ae426082"
)
BLANK_PDF = (
    b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n2 0 obj<</Type/Pages/Kids[3 0 R]/Count 1>>endobj\n"
    b"3 0 obj<</Type/Page/Parent 2 0 R/MediaBox[0 0 72 72]>>endobj\ntrailer<</Root 1 0 R>>\n%%EOF\n"
)
FILES = {"empty": b"", "png": BLANK_PNG, "pdf": BLANK_PDF}
