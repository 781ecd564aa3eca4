"""Vocabulary: places below the surface, structures in both water and air, banks."""

from __future__ import annotations

__all__ = ["PLACES"]


def _deep(gloss: str, names: str, parts: str, signs: str, at: str = "on") -> dict[str, str]:
    return {
        "scene": "underwater",
        "at": at,
        "through": "along",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


def _both(gloss: str, names: str, parts: str, signs: str) -> dict[str, str]:
    return {
        "scene": "sea_structure",
        "at": "on",
        "through": "around",
        "gloss": gloss,
        "names": names,
        "parts": parts,
        "signs": signs,
    }


PLACES: dict[tuple[str, str], dict[str, str]] = {
    ("water", "seabed"): _deep(
        "the ground below the sea or a lake",
        "seabed; ocean floor; sea floor; lake bed; river bottom; deep sea; deep-sea trench; continental shelf; "
        "abyssal plain; underwater canyon; ocean trench; underwater volcano; hydrothermal vent field; "
        "bottom of the fjord",
        "sediment; manganese nodules; black smokers; seagrass; sponges; crab traps; fishing nets; seamounts; "
        "sea cucumbers",
        "lost nets; unexploded mines; sunken cargo; gas seeps; new species; plastic waste; a missing anchor; "
        "plane wreckage",
    ),
    ("water", "reef"): _deep(
        "living rock or plants under water",
        "coral reef; tropical reef; artificial reef; kelp forest; seagrass meadow; coral garden; oyster bank; "
        "lagoon reef; mussel bed; barrier reef",
        "coral heads; fish schools; sea urchins; polyps; anemones; kelp stems; starfish; reef sharks; giant clams",
        "bleaching; anchor damage; crown-of-thorns starfish; algae overgrowth; ghost nets; broken coral; lionfish",
    ),
    ("water", "wreck"): _deep(
        "a ship or thing that has sunk",
        "shipwreck; sunken ferry; sunken ship; submarine wreck; wreck of the galleon; sunken barge; submerged ruins; "
        "sunken city; sunken aircraft; capsized trawler below the surface",
        "cargo hold; anchor chain; ship's bell; amphorae; portholes; wheelhouse; propeller; ballast stones; cabins",
        "artefacts; leaking fuel; gold coins; trapped divers; oil leaks; munition; the voyage recorder",
    ),
    ("water", "subsea_pipe"): _deep(
        "a pipe or cable laid below water",
        "subsea pipeline; undersea cable; underwater pipeline; submerged water main; gas pipeline on the seabed; "
        "submarine power cable; desalination intake; sewage outfall; submerged outlet; underwater wellhead; "
        "cooling water intake; flooded pipe; water-filled culvert",
        "pipe joints; weld seams; valves; anodes; cable burial; flanges; concrete coating; intake screens; connectors",
        "leaks; free spans; corrosion; clogging; mussel growth; cable damage; blockages; cracks",
    ),
    ("water", "piles"): _deep(
        "the part of a structure that stands below the surface",
        "submerged bridge piles; ~bridge piers below the waterline; underwater foundation; submerged quay wall; "
        "underwater part of the dam; submerged turbine base; ~jacket legs under water; underwater tunnel shell; "
        "submerged lock gate; mooring chain; undersea restaurant; undersea observatory; submerged base of the jetty",
        "footings; scour holes; anodes; steel piles; concrete base; weld seams; marine growth; timber piles; "
        "chain links",
        "scour; marine growth; cracks; corrosion; exposed rebar; missing bolts; borer worms",
    ),
    ("water", "ship_hull"): _deep(
        "the part of a ship below the waterline",
        "ship hull; hull of the ferry; tanker hull; yacht keel; rudder and propeller; ship's bottom; submarine hull; "
        "naval vessel's hull; underside of the barge; container ship's keel; ~hulls of anchored ships",
        "propeller; rudder; sea chests; hull plates; bow thruster; anodes; bilge keels; stern tube",
        "barnacles; dents; paint damage; fouling; cracks; limpet mines; rope in the propeller",
    ),
    ("water", "reservoir"): _deep(
        "a body of water seen from inside",
        "reservoir bottom; flooded mine shaft; water tank; drinking water reservoir; lake depths; flooded cave; "
        "underwater cave; cenote; swimming pool; diving pool; aquarium tank; flooded quarry pit; fish pond bottom; "
        "well shaft full of water; sunken tunnel; harbour basin floor; fountain basin",
        "drain grates; pool tiles; tank lining; inlet pipes; pool lights; viewing glass; mud layer; filter screens",
        "silt; lost rings; leaks; algae; a missing swimmer; broken tiles; cracks; dead fish",
        "in",
    ),
    ("water", "open_water"): _deep(
        "sea or lake water well below the surface",
        "open ocean depths; water column; deep lake water; waters under the ice; sea below the ice shelf; "
        "mid-water zone; polluted harbour water; underwater spring; marine sanctuary below the surface; "
        "whale feeding depths",
        "water samples; plankton; salinity; dolphins; whale calves; oxygen levels; jellyfish swarms; currents; "
        "fish stocks",
        "pollution; oil plumes; microplastics; algal blooms; dead zones; submarines",
        "in",
    ),
    ("water and air", "platform"): _both(
        "a structure standing in the sea, partly above and partly below the surface",
        "offshore platform; oil platform; gas platform; drilling rig; oil rig at sea; offshore substation; "
        "production platform; jack-up rig; floating production vessel; offshore oil installation",
        "structure; legs and deck; jacket and topside; risers; outer structure; splash zone; whole installation",
        "structural damage; corrosion; leaks; fatigue; storm damage; boat impacts",
    ),
    ("water and air", "sea_wind"): _both(
        "a sea-standing plant with parts in air and water",
        "offshore wind farm; offshore wind turbine; tidal power plant; floating solar plant; wave power plant; "
        "weather buoy; floating wind turbine; offshore met mast; ~navigation buoys; sea lighthouse",
        "tower and foundation; whole structure; splash zone; floats and moorings; transition piece; "
        "foundation and platform",
        "corrosion; storm damage; loose moorings; bird strikes and fouling; cracks",
    ),
    ("water and air", "harbour"): _both(
        "a construction at the water's edge with parts above and below the surface",
        "pier; jetty; harbour wall; breakwater; marina pontoons; floating dock; lock gate; ship at anchor; quay; "
        "seawall; ferry landing; harbour entrance; fishing harbour; tanker at the terminal",
        "pilings and deck; outer wall; structure; mooring points; fenders; wall above and below; sluice gates",
        "storm damage; undercutting; collision damage; corrosion; cracks; missing fenders; rot",
    ),
    ("water and air", "crossing"): _both(
        "a structure that crosses or fences in water",
        "sea bridge; bridge across the strait; river bridge with its piers; fish farm; salmon cages; floating bridge; "
        "weir; dam with its reservoir side; barrage; river dam; stilt village; water intake tower",
        "piers and deck; nets and walkways; whole structure; cages; piers and cables; both sides of the wall; floats",
        "flood damage; torn nets; scour; cracks; debris jams; escaped fish",
    ),
    ("bank", "river_bank"): {
        "scene": "riverbank",
        "at": "along",
        "through": "along",
        "gloss": "the steep or soft edge of a river or lake",
        "names": "riverbank; steep riverbank; lake shore; river bend; canal bank; stream bank; muddy riverside; "
        "pond edge; mangrove edge; undercut bank; reedy lakeside; creek bank",
        "parts": "tree roots at the water; bank vegetation; reed belt; bank slope; beaver dams; undercut roots; "
        "willow roots; stone revetment; otter holts; amphibian spawn",
        "signs": "bank erosion; collapse; pollution; undercutting; beaver damage; invasive plants; dead fish",
    },
}
"""(zone, key) -> fields of `Environment`."""
