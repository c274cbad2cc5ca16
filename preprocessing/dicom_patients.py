"""Which DICOM files are one patient's, by what their headers and a table say together."""

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress

from preprocessing.dicom_identity import Identity, read_identity
from preprocessing.header import Header, hash_patient
from preprocessing.limits import RadiographError
from preprocessing.source import problem
from preprocessing.storage import AnyPath

_Name = tuple[str, str]
"""What a patient is called: who says so, header or table, and a hash."""


def name_patients(
    headers: Mapping[int, tuple[Header, Identity]], told: Mapping[int, str], *, salt: bytes
) -> tuple[dict[int, str], dict[int, tuple[str, str]]]:
    """Name the patients of files, so that those who are one by the header or by the table have one name.

    A patient id without an issuer is the same as with one. Headers that give one patient in all files, where the table
    has several, tell nobody apart, and the table counts.

    Args:
        headers: Read under the same salt, by the number of the file; one that is no DICOM has none.
        told: The table's word for the patient, by the number of the file; empty where it says none.
        salt: Of the site. Names are hashes under it, or without one numbers, as a hash could be looked up.

    Returns:
        A name for each file that `told` has, empty where nobody knows the patient; reason and sentence where header
        and table disagree about who is one patient. Neither holds an identifier.
    """
    known = {index: headers[index] for index in told if index in headers and headers[index][0].patient_hash}
    alike = [told[i] in (header.patient_hash, who.patient) for i, (header, who) in known.items() if told[i]]
    own_words = bool(alike) and not any(alike)  # the table calls patients otherwise: equal words would mean nothing
    hashes = {str(header.patient_hash) for header, _ in known.values()}  # a table may hold them in place of the ids
    words = {index: word if word in hashes else hash_patient(salt, word) for index, word in told.items() if word}
    called = _issued(known.values(), () if own_words else {*words.values()} - hashes, salt)
    ids = {index: called[str(header.patient_hash)] for index, (header, _) in known.items()}
    is_constant = own_words and len({*ids.values()}) == 1 < len({*words.values()})
    names_of_file: dict[int, set[_Name]] = {index: set() for index in told}
    for index, word in words.items():
        names_of_file[index].add(("table", word) if own_words else ("header", called[word]))
    for index, name in ids.items():
        if not (is_constant and index in words):
            names_of_file[index].add(("header", name))
    patient_of_name, names_of_patient = _joined(names_of_file.values())
    files_of_patient: dict[_Name, list[int]] = {}
    for index, names in names_of_file.items():
        if names:
            files_of_patient.setdefault(patient_of_name[min(names)], []).append(index)
    found = dict.fromkeys(told, "")
    doubts: dict[int, tuple[str, str]] = {}
    for number, (patient, files) in enumerate(files_of_patient.items(), start=1):
        names = names_of_patient[patient]
        found |= dict.fromkeys(files, _hash_of(names) if salt else f"patient-{number:06d}")
        if len(files) > 1 and max(Counter(by for by, _ in names).values()) > 1:
            text = f"DICOM headers and table part its patient otherwise: all {len(files)} files stay together."
            doubts |= dict.fromkeys(files, ("patients_disagree", text))
        elif is_constant:
            text = "Every DICOM header gives the same patient, the table several; the table counts."
            doubts |= dict.fromkeys((i for i in files if i in words and i in ids), ("patients_disagree", text))
    return found, doubts


def join_by_headers(
    root: AnyPath, cases: list[dict[str, object]], told: Mapping[int, str], *, salt: bytes
) -> list[dict[str, str]]:
    """Name the patients of a labelled folder anew, where DICOM files lie among its pictures that say whose they are.

    Args:
        root: The folder.
        cases: Their patients are set.
        told: As `name_patients` has it, by the place in `cases`.
        salt: Of the site.

    Returns:
        A note for each case where header and table disagree.
    """
    headers = {}
    for index, known in enumerate(cases):
        if str(known["file"]).lower().endswith(".dcm"):
            with suppress(RadiographError, OSError):  # whoever reads its pixels says why it cannot be read
                headers[index] = read_identity(root / str(known["file"]), salt)
    if not any(header.patient_hash for header, _ in headers.values()):
        return []
    names, doubts = name_patients(headers, told, salt=salt)
    for index, name in names.items():
        cases[index]["patient"] = name
    return [problem(str(cases[i]["case_id"]), str(cases[i]["file"]), *doubt) for i, doubt in sorted(doubts.items())]


def _issued(headers: Iterable[tuple[Header, Identity]], words: Iterable[str], salt: bytes) -> dict[str, str]:
    """What each hash of a patient id is called: without an issuer it is that of the issuer, or joins several."""
    hashes_of_id: dict[str, set[str]] = {word: {word} for word in words}
    for header, identity in headers:
        hashes_of_id.setdefault(hash_patient(salt, identity.patient), set()).add(str(header.patient_hash))
    called: dict[str, str] = {}
    for without, hashes in hashes_of_id.items():
        issued = sorted(hashes - {without})
        one = issued[0] if len(issued) == 1 else without
        called |= {known: one if without in hashes else known for known in hashes}
    return called


def _joined(groups: Iterable[set[_Name]]) -> tuple[dict[_Name, _Name], dict[_Name, set[_Name]]]:
    """One of a patient's names by each of them, and all of them by that one, where every group is of one patient."""
    above: dict[_Name, _Name] = {}  # a forest: each tree is a patient, called as its root

    def root(name: _Name) -> _Name:
        while (higher := above.setdefault(name, name)) != name:
            above[name] = name = above[higher]  # halves the way for the next search
        return name

    for group in filter(None, groups):
        roots = {root(name) for name in group}
        above |= dict.fromkeys(roots, min(roots))
    patient_of_name = {name: root(name) for name in above}
    names_of_patient: dict[_Name, set[_Name]] = {}
    for name, patient in patient_of_name.items():
        names_of_patient.setdefault(patient, set()).add(name)
    return patient_of_name, names_of_patient


def _hash_of(names: set[_Name]) -> str:
    """The header's, as in other cohorts under the salt, unless it has several; then the table's where it has any."""
    of_header, of_table = (sorted(name for by, name in names if by == wanted) for wanted in ("header", "table"))
    return (of_header if len(of_header) == 1 else of_table + of_header)[0]
