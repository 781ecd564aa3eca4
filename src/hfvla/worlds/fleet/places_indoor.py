"""Vocabulary: buildings seen as corridors ("passage") and as fittings ("equipment")."""

from __future__ import annotations

__all__ = ["PLACES"]

_EQUIPMENT = (
    "air conditioning units; HVAC system; boiler; fuse box; switch cabinets; air vents; fire extinguishers; "
    "smoke detectors; radiators; water heater; sprinkler heads; ventilation openings; pump controls; thermostats; "
    "electrical panels; server racks; heating controls; meter cabinet; air quality sensors; cooling units; "
    "elevator machinery; air filters; exhaust hoods; light switches; ventilation system; backup batteries"
)
_PASSAGE = (
    "hallway floor; corridor; floor tiles; passageways; emergency exits; floor markings; aisles between the rooms; "
    "carpets; exit signs; corridor lights; walkways; floor covering; ramp; lobby floor; skirting boards"
)
_SIGNS = (
    "wet floor; forgotten bags; obstacles; burnt-out lamps; smoke; water leaks; strange noise; dust; overheating; "
    "open doors; mould; poor air; blocked exits; alarms"
)


def _building(gloss: str, names: str, extra: str = "", handle: str = "") -> dict[str, str]:
    fields = {
        "scene": "corridor",
        "at": "in",
        "through": "through",
        "gloss": gloss,
        "names": names,
        "equipment": f"{_EQUIPMENT};{extra}",
        "passage": _PASSAGE,
        "signs": _SIGNS,
    }
    return fields | ({"handle": handle} if handle else {})


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("building", "office"): _building(
        "a building where people work at desks",
        "office corridor; office building; office hallway; ministry building; bank branch; insurance office; "
        "cramped office passage; headquarters; call centre; co-working space; town hall corridor; law firm",
        "printers; copy machines; coffee machine; projector",
        "refill the printer paper; water the office plants with a can; sort the mail into pigeonholes; "
        "shred the old files; set the conference table; load the dishwasher in the tea kitchen; "
        "press the lift buttons; staple the reports; clear the desks; open the windows; hang up the wall charts",
    ),
    ("building", "hospital_corridor"): _building(
        "a house where the sick are treated, seen as halls and floors",
        "hospital corridor; hospital wing; clinic hallway; hospital floors; corridor of the maternity ward; "
        "sterile goods corridor; surgical wing; rehabilitation centre; health centre; medical centre hallway",
        "oxygen outlets; sterilisers; nurse call panels; medical gas valves; X-ray machine",
        "change the bed linen; disinfect the door handles; open the medicine cabinet and sort the drawers; "
        "lay out surgical instruments; restock the bandage drawers; wipe the examination couches; make the beds",
    ),
    ("building", "hotel_corridor"): _building(
        "a house with many guest rooms, seen as halls",
        "hotel corridor; hotel hallway; cruise ship corridor; dormitory hallway; youth hostel corridor; "
        "apartment house hallway; retirement home hallway; resort building; guest floor",
        "ice machines; minibars; laundry machines; key card readers",
        "make the hotel beds; fold the towels; fill up the minibar; clean the bathroom mirrors; "
        "vacuum under the beds; hang up fresh bathrobes; replace the soap and shampoo; change the pillow cases; "
        "unlock the linen closet",
    ),
    ("building", "school"): _building(
        "a house for learning or reading",
        "school corridor; library; university library; archive; reading room; court building; museum gallery; "
        "art gallery; laboratory corridor; exhibition rooms; kindergarten hallway; record office; lecture building",
        "display cases; dehumidifiers; projectors; book scanners; climate loggers",
        "shelve the returned books; wipe the blackboard; dust the display cases; stack the chairs; hang a painting; "
        "open the showcases and change the labels; bind loose pages; put together a cardboard model; sharpen pencils",
    ),
    ("building", "technical_rooms"): _building(
        "the rooms of a house that hold its machines",
        "boiler room; data centre; server room; plant room; pump house; basement of the office block; control centre; "
        "technical floor; elevator machine room; heating cellar; power plant control building; mall service area",
        "generators; pumps; chillers; cable trays; UPS batteries; heat exchangers",
        "turn the shut-off valves; tighten the pipe clamps with a wrench; replace the blown fuses; swap a hard drive; "
        "plug in the network cables; flip the breakers; read the gauges and press reset; "
        "open the hatch and change the filter; screw the cover plate back on; solder the loose wire",
    ),
    ("building", "ventilation_shaft"): {
        "scene": "corridor",
        "at": "in",
        "through": "through",
        "gloss": "a long narrow channel for air or cables, with a smooth floor",
        "names": "ventilation shaft; cable duct; service duct; air duct tunnel; pipe corridor; ventilation channel; "
        "narrow service passage; long supply corridor; technical duct; conveyor tunnel between the halls; "
        "ventilation duct of the plant",
        "passage": "duct floor; duct walls; shaft bottom; duct joints; channel floor; cable runs; shaft corners; "
        "dust traps",
        "signs": "blockages; dust build-up; dead animals; leaks; loose sheets; obstructions; mould; corrosion",
    },
}
"""(zone, key) -> fields of `Environment`."""
