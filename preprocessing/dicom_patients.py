"""Which DICOM files are one patient's, by what their headers and a table say together."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from preprocessing.dicom_folder import DicomFile
from preprocessing.header import hash_patient

_Names = set[tuple[str, str]]
"""What one patient is called: pairs of who says so, header or table, and a hash."""


def name_patients(
    files: Sequence[DicomFile], told: Mapping[int, str], *, salt: bytes, own_words: bool
) -> tuple[dict[int, str], dict[int, tuple[str, str]]]:
    """Name the patients of files, so that those who are one by the header or by the table have one name.

    A patient id without an issuer is the same as with one. Headers that give one patient in all files, where the table
    has several, tell nobody apart, and the table counts.

    Args:
        files: Their headers were read under the same salt.
        told: The table's word for the patient by the index of the file; empty where it says none.
        salt: Of the site. Names are hashes under it, or without one numbers, as a hash could be looked up.
        own_words: The table calls its patients otherwise than the headers, so that the same word means nothing.

    Returns:
        A name by the index of the file, empty where nobody knows the patient; reason and sentence where header and
        table disagree about who is one patient. Neither holds an identifier.
    """
    words = {index: hash_patient(salt, word) for index, word in told.items() if word}
    called = _issued([files[index] for index in told], () if own_words else words.values(), salt)
    ids = {index: called[known] for index in told if (known := files[index].header.patient_hash)}
    is_constant = own_words and len({*ids.values()}) == 1 < len({*words.values()})
    names_of_file: dict[int, _Names] = {index: set() for index in told}
    for index, word in words.items():
        names_of_file[index].add(("table", word) if own_words else ("header", called[word]))
    for index, known in ids.items():
        if not (is_constant and index in words):
            names_of_file[index].add(("header", known))
    patients = _joined(names_of_file.values())
    patient_of_file = {index: patients[min(names)] for index, names in names_of_file.items() if names}
    num_files = Counter(map(id, patient_of_file.values()))
    numbers: dict[int, str] = {}
    found, doubts = dict.fromkeys(told, ""), {}
    for index, names in patient_of_file.items():
        number = numbers.setdefault(id(names), f"patient-{len(numbers) + 1:06d}")
        found[index] = _hash_of(names) if salt else number
        if max(Counter(by for by, _ in names).values()) > 1:
            text = (
                f"DICOM headers and table part its patient otherwise: all {num_files[id(names)]} files stay together."
            )
            doubts[index] = ("patients_disagree", text)
        elif is_constant and index in words and index in ids:
            text = "Every DICOM header gives the same patient, the table several; the table counts."
            doubts[index] = ("patients_disagree", text)
    return found, doubts


def _issued(files: Iterable[DicomFile], words: Iterable[str], salt: bytes) -> dict[str, str]:
    """What each hash of a patient id is called: without an issuer it is that of the issuer, or joins several."""
    hashes_of_id: dict[str, set[str]] = {word: {word} for word in words}
    for file in files:
        if file.header.patient_hash:
            hashes_of_id.setdefault(hash_patient(salt, file.identity.patient), set()).add(file.header.patient_hash)
    called: dict[str, str] = {}
    for without, hashes in hashes_of_id.items():
        issued = sorted(hashes - {without})
        one = issued[0] if len(issued) == 1 else without
        called |= {known: one if without in hashes else known for known in hashes}
    return called


def _joined(groups: Iterable[_Names]) -> dict[tuple[str, str], _Names]:
    """All names of a patient by each of them, where every group is of one patient."""
    found: dict[tuple[str, str], _Names] = {}
    for group in groups:
        joined = [found.get(name, {name}) for name in group]
        most = max(joined, key=len, default=set())
        for names in joined:
            most |= names
            found.update(dict.fromkeys(names, most))
    return found


def _hash_of(names: _Names) -> str:
    """The header's, as in other cohorts under the salt, unless it has several; then the table's where it has any."""
    of_header, of_table = (sorted(name for by, name in names if by == wanted) for wanted in ("header", "table"))
    return (of_header if len(of_header) == 1 else of_table + of_header)[0]
