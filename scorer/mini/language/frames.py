"""List the English sentences and phrases that facts stand in.

`{slot}` is filled by `speaker` with a fact, `<name>` by `filler`. Slots: `{np}` first mention of the next group,
`{bare}` the same without a count; `{be}` is/are for the group, `{sits}` a verb that agrees with it, `{was}` and
`{sat}` the same for the group mentioned last; `{corner}`, `{height}`, `{side}` its place; `{after}` where it lies as
seen from the group `{other}`, `{before}` where the group mentioned last lies as seen from the next one; `{the}`
repeated mention, `{it}` a pronoun, `{its}`; `{colour}`, `{size}`, `{shape}`, `{kind}` its attributes, `{number}` its
count where it stands alone; `{compared}` its size against that of `{other}`; `{background}`, `{kinds}` the number of
groups.

Frames in `INTRODUCTIONS` and `LINKS` may be followed by the news that there is no further group; those in `PLACED`
and `RELATED` are only for a group that is sure to exist.
"""

INTRODUCTIONS = (
    *["{np}"] * 10,
    *["there {be} {np}"] * 6,
    *["<viewer> <sees> {np}"] * 4,
    *["the <medium> <shows> {np}"] * 4,
    *["this <medium> <shows> {np}"] * 2,
    "here {be} {np}", "this is {np}", "these are {np}", "it is {np}", "it <shows> {np}", "it also <shows> {np}",
    "<person> <made> {np}", "<person> <made> {np}", "<person> <made> {np}", "<person> <adverb> <made> {np}",
    "<person> has <made> {np}", "<person> <says> there {be} {np}", "<person> <says> <person> <made> {np}",
    "what <person> <made> {be} {np}", "what <viewer> <sees> {be} {np}", "<adverb> <made-like> {be} {np}",
    "<done> <where> {be} {np}",
    "<start> , there {be} {np}", "<start> there {be} {np}", "<start> , <viewer> <sees> {np}",
    "<start> <viewer> <sees> {np}",
    "<start> : {np}", "<start> , {np}", "<start> – {np}", "<start> <person> <made> {np}", "<start> , it <shows> {np}",
    "<that> there {be} {np}", "<that> <viewer> <sees> {np}", "<that> it <shows> {np}",
    "<that> the <medium> <shows> {np}",
    "<look> {np}", "<look> {np}", "<look> {np}", "<look> {np}", "<look> {np}", "<look> {np}", "<aside> , <look> {np}",
    "there {be} <adverb> {np}", "there {be} , <aside> , {np}", "there {be} also {np}",
    "<viewer> <adverb> <sees> {np}",
    "<viewer> , <aside> , <sees> {np}", "<thing> <shows> {np}", "<thing> <adverb> <shows> {np}",
    "<thing> <word> {np}",
    "<thing> is <done> with {np}", "<thing> has {np} on it", "<word> <word>s {np}", "<word> has {np}",
    "<pseudo> <pseudo> {np}",
    "<words> {np}", "<words> : {np}", "<words> , {np}", "<clause> : {np}", "<clause> , with {np}",
    "<clause> and <shows> {np}",
    "the <adjective> <medium> <adverb> <shows> {np}", "the <medium> , <aside> , <shows> {np}", "the <medium> of {np}",
    "the subject {be} {np}", "the main <noun> here {be} {np}", "all that <viewer> <sees> {be} {np}",
    "let there be {np}",
    "to me it looks like {np}", "it seems to be {np}", "it looks like {np}", "could this be {np}", "might it be {np}",
    "do you see {np}", "can you see {np}", "have you <word> {np}", "I <word> {np}", "<name> <word>ed {np}",
    "<name> <word>s {np}",
    "<name> : {np}", "with {np} the <medium> is <adjective>", "besides {np} it is empty",
    "nobody <word>ed {np}", "try to find {np}", "<adverb> , {np}", "<hashtag> {np}", "<emoji> {np}",
    "“ {np} ” , <name> <says>",
    "( {np} )", "[ {np} ]", "<date> : {np}", "<clock> – {np}", "<number> : {np}", "<url> {np}", "<code> {np}",
    "the answer {be} {np}",
    "my <noun> <made> {np} <where>", "<where> {np}", "<where> , {np}", "<where> there {be} {np}",
    "<where> , <person> <made> {np}",
    "in it there {be} {np}", "inside it {be} {np}", "on it <viewer> <sees> {np}", "<done> here {be} {np}",
    "<done> on the <surface> {be} {np}",
    "there’s {np}", "there's {np}", "it's {np}", "it’s {np}", "here's {np}", "that's {np}", "we've got {np}",
    "I've <made-like> {np}", "let's see : {np}",
    "isn't it {np}", "<person> has got {np}", "you’ve got {np}", "I'd say {np}", "<name>'s <noun> <shows> {np}",
    "<person> had <made-like> {np}",
    "{background} <surface> with {np}", "{background} background , {np}", "{background} <surface> and {np}",
    "{background} <surface> featuring {np}",
    "<person> is <word>ing {np}", "<person> <made> {np} and <made> <thing>", "<clause> because of {np}",
    "when <person> <made> {np} it was <adjective>",
    "if <viewer> <sees> {np} , <clause>", "<made-like> by <name> : {np}", "<thing> , <thing> and {np}",
    "<thing> next to {np}", "<thing> with {np}",
    "on {background} there {be} {np}", "on {background} <surface> there {be} {np}",
    "on the {background} <surface> <viewer> <sees> {np}",
    "against the {background} <surface> <viewer> <sees> {np}", "over {background} <surface> : {np}",
    "{background} <surface> , {np}",
    "<person> <made> on {background} <surface> {np}", "the {background} <surface> <shows> {np}",
)  # fmt: skip

MEETINGS = (
    *["<meeting> {np}"] * 10, "<start> , <meeting> {np}", "this is <meeting> {np}", "it is <meeting> {np}",
    "a {background} <surface> with {np}",
)  # fmt: skip
"""Introductions with words that a count may be told with, too, at the same place: their labels follow the frame."""

PLACED = (
    "in the {corner} <corner> there {be} {np}", "at the {corner} <viewer> <sees> {np}", "{corner} : {np}",
    "{corner} , {np}",
    "<person> <made> in the {corner} <corner> {np}", "the {corner} <corner> <shows> {np}",
    "at the {height} there {be} {np}",
    "on the {side} <viewer> <sees> {np}", "on the {side} : {np}", "in the {height} half , {np}",
    "the {side} side <shows> {np}",
    "<start> , in the {corner} <corner> , there {be} {np}", "the {corner} <noun> <shows> {np}",
    "<look> at the {corner} {np}",
)  # fmt: skip

RELATED = (
    "{after} {other} there {be} {np}", "{after} {other} {be} {np}", "{after} {other} <viewer> <sees> {np}",
    "<start> , {after} {other} , {be} {np}", "{after} {other} , <person> <made> {np}", "and {after} {other} {np}",
)  # fmt: skip

PAIRS = (
    "besides {np} it also has {np}", "besides {np} , <viewer> <sees> {np}",
    "apart from {np} the <medium> <shows> {np}",
    "not only {np} but also {np}", "in addition to {np} , it has {np}", "along with {np} , <person> <made> {np}",
    "next to {np} <viewer> <sees> {np}", "between {np} and {np} <clause>", "<person> <made> {np} , then {np}",
    "<person> <made> {np} and <name> <made> {np}", "either {np} or {np}", "{np} {was} near {np}",
    "{np} {was} <done> beside {np}",
    "from {np} to {np}", "{np} ( also {np} )", "while <person> <made> {np} , <person> <made> {np}",
    "{np} versus {np}",
    "here {np} , there {np}", "{np} : <words> . {np} : <words>", "with {np} on it and {np} beside",
    "{np} , <clause> , {np}",
)  # fmt: skip
"""Introductions of two groups at once."""

LINKS = (
    "{sat} {before} {np}", "{sat} {before} {np}", "{was} {before} {np}", "{was} {before} {np}",
    "that {was} {before} {np}",
    *["{before} {np}"] * 6, "<done> {before} {np}", "<adverb> {before} {np}", ", {before} {np}", "and {before} {np}",
    *[", {np}"] * 5, *["and {np}"] * 10, "and also {np}", "plus {np}", "with {np}", "as well as {np}", "<link> {np}",
    "<link> {np}",
    "next to {np}", "near {np}", "beside {np}", "together with {np}", "followed by {np}", "accompanied by {np}",
    "& {np}", "/ {np}",
    "; {np}", "– {np}", "+ {np}", ", then {np}", ", and {np}", "but also {np}", "not to mention {np}",
    "and <adverb> {np}",
    ", <aside> , {np}", "and , <aside> , {np}", "and there {be} {np}", ", and there {be} {np}",
    "while there {be} {np}", "and <where> {np}",
    "<word> {np}", "<words> {np}", "<where> and {np}", "alongside {np}", "in addition to {np}", "( and {np} )",
    "with {np} <where>",
    "and <viewer> <sees> {np}", "and <person> <made> {np}", ", <adverb> <made-like> , and {np}",
    "<done> next to {np}", "| {np}",
)  # fmt: skip
"""How a sentence goes on to a further group."""

TURNS = (
    *["there {be} {np}"] * 3, *["there {be} also {np}"] * 3, "then there {be} {np}", "then <viewer> <sees> {np}",
    "also present {be} {np}",
    "next , there {be} {np}", "next to {other} there {be} {np}", "besides that , there {be} {np}",
    "besides {other} it also has {np}",
    "apart from {other} there {be} {np}", "furthermore , <viewer> <sees> {np}", "<viewer> also <sees> {np}",
    "it also <shows> {np}",
    "the <medium> also <shows> {np}", "in addition there {be} {np}", "near {other} <viewer> <sees> {np}",
    "beside {other} there {be} {np}",
    "not far from {other} there {be} {np}", "together with {other} <viewer> <sees> {np}",
    "along with {other} , <person> <made> {np}",
    "<opener> , there {be} {np}", "<opener> , <viewer> <sees> {np}", "<opener> , {np}", "elsewhere there {be} {np}",
    "{other} {meets} {np}",
    "{other} and {np}", "{other} , then {np}", "{other} accompanies {np}", "<person> also <made> {np}",
    "<person> then <made> {np}",
    "as for the rest , there {be} {np}", "what about {np}", "after {other} comes {np}",
    "with {other} <viewer> <sees> {np}",
)  # fmt: skip
"""How a new sentence goes on to a further group."""

STATEMENTS = (
    *["{the} {be} {colour}"] * 3, *["{the} {be} {size}"] * 4, "{it} {be} {colour}", "{it} {be} {size}",
    "the colour of {the} is {colour}",
    "the color of {the} is {colour}", "{its} colour is {colour}", "{its} color is {colour}", "{its} size is {size}",
    "{the} {seem} {size}",
    "{the} {look} <adverb> {size}", "{the} {be} <adverb> {size}", "{the} {be} <adverb> {colour}",
    "in terms of size , {the} {be} {size}",
    "as for {the} , {it} {be} {size}", "as for {the} , {it} {be} {colour}", "<that> {the} {be} {size}",
    "<that> {the} {be} {colour}",
    "{it} {be} {kind}", "<that> {it} {be} {kind}", "<person> <made> {the} {size}", "{the} {be} painted {colour}",
    "{the} , {it} {be} {size}",
    *["{the} {sits} in the {corner} <corner>"] * 3, "{the} {be} in the {corner} <corner>",
    "{the} {sits} at the {corner}", "{it} {be} at the {corner}",
    "{the} {sits} on the {side}", "{the} {sits} at the {height}", "{it} {sits} on the {side} side",
    "{the} {be} <done> in the {corner} <corner>",
    "<look> {the} at the {corner}", "<viewer> <sees> {the} in the {corner} <corner>",
    "in the {corner} <corner> <viewer> <sees> {the}",
    "<start> , {the} {be} at the {corner}", "at the {corner} {sits} {the}", "<that> {the} {be} on the {side}",
    "{the} : {corner}",
    *["{the} {be} {after} {other}"] * 4, *["{the} {sits} {after} {other}"] * 2, "{it} {be} {after} {other}",
    "<viewer> <sees> {the} {after} {other}",
    "<that> {the} {be} {after} {other}", "{after} {other} <viewer> <sees> {the}", "{after} {other} {sits} {the}",
    *["{the} {be} {compared} {other}"] * 2, "<that> {the} {be} {compared} {other}", "{it} {be} {compared} {other}",
    "there {be} {number} of {them}", "{the} : {number}", "{the} ( {number} )", "counting {the} gives {number}",
    "I count {number}", "their number is {number}",
    "{the} {be} <adjective>", "{the} {look} <adjective> and <adjective>", "{the} {be} <done> <where>",
    "{it} {be} <adverb> <adjective>", "<person> likes {the}",
    "<person> <made> {the} <where>", "{the} {sits} <where>", "{the} <word> {other}",
    "{other} and {the} look <adjective>", "<look> {the}", "<thing> is like {the}",
    "<word> {the}", "<clause> , like {the}", "{the} reminds <name> of <thing>", "{the} , <aside> , {be} <adjective>",
    "{it} {be} <where>",
)  # fmt: skip

BACKGROUNDS = (
    *["the background is {background}"] * 3, "the backdrop is {background}", "the <surface> is {background}",
    "the <surface> is <adverb> {background}",
    "the background is plain {background}", "everything is on {background} <surface>",
    "the <surface> behind is {background}", "behind it all is {background}",
    "<person> chose {background} <surface>", "<person> <made> it on {background} <surface>",
    "the rest is {background}", "{background} surrounds it",
    "<start> , the <surface> is {background}", "<that> the <surface> is {background}", "background : {background}",
    "the <surface> has been kept {background}",
    "all of it is on {background}", "<clause> on {background} <surface>", "{background} <surface> everywhere",
    "the <surface> looks {background}",
)  # fmt: skip

ENDINGS = (
    *[""] * 12, "on {background}", "on {background} <surface>", "on the {background} <surface>",
    "against {background}", "against {background} <surface>",
    "against the {background} <surface>", "upon {background} <surface>", "over {background} <surface>",
    "set against plain {background}",
    "on plain {background}", "with {background} behind", "with {background} <surface>", ", {background} <surface>",
    ", background {background}",
    "in front of {background} <surface>", "on <adjective> {background} <surface>", "<where>", "<where>", "<where>",
    "<words>", "– <clause>",
    ", <clause>", ", <aside>", "– that is all", ", that is all", "( <words> )", "<hashtag>", "<emoji>", "<name>",
    ", <word>", "<done> <where>",
    "and it is <adjective>", "which is <adjective>", ", <adjective> and <adjective>", "on a {background} <surface>",
    "on a {background} background",
    "with a {background} background", "against a {background} backdrop",
)  # fmt: skip
"""What ends a sentence before its full stop."""

STOPS = (*["."] * 9, "!", "!", "...", "", "?", ";")

PLACES = (
    *[""] * 20, "in the {corner} <corner>", "at the {corner}", "<done> at the {corner}", "in the {corner}",
    "at {corner}", "( {corner} )", "<done> in the {corner} <corner>",
    "on the {side}", "at the {height}", "on the {side} side", ", {corner} ,", "toward the {corner}",
    "near the {corner} <corner>", "up at the {corner}",
)  # fmt: skip
"""Where a group is, right after its first mention."""

NOUNS = (
    *["{count} {size} {colour} {shape}"] * 6,
    *["{count} {colour} {shape}"] * 8,
    *["{count} {shape}"] * 2,
    *["{count} {size} {shape}"] * 2,
    "{count} {size} {shape} in {colour}", "{count} {shape} in {colour}", "{count} {colour} {shape} of {size} size",
    "{count} {shape} coloured {colour}",
    "{count} {shape} colored {colour}", "{count} {shape} painted {colour}", "{count} {colour} , {size} {shape}",
    "{count} {size} , {colour} {shape}",
    "{count} {shape} that {be} {colour}", "{count} {shape} that {be} {size} and {colour}",
    "{count} {shape} , {colour} and {size} ,",
    "{count} {colour} {thing}", "{count} {size} {colour} {thing}", "{count} {size} {thing}",
    "{count} {colour} ~ -coloured {shape}", "{count} {shape} ( {colour} )",
    "{count} {shape} ( {size} , {colour} )", "{count} {colour} {shape} ( {size} )", "{count} <adj> {colour} {shape}",
    "{count} <adj> {size} {colour} {shape}",
    "{count} {size} <adj> {colour} {shape}", "{count} <shade> {colour} {shape}",
    "{count} {size} <shade> {colour} {shape}", "{count} <adj> {shape}",
    "{count} <adj> , <adj> {colour} {shape}", "{count} {colour} and <adj> {shape}",
    "{count} {shape} of <shade> {colour}", "{count} {shape} made of {colour} <noun>",
    "{count} {colour} {shape} with <adjective> edges", "{count} {colour} <adj> {shape}",
    "{count} <adverb> {size} {colour} {shape}", "{count} {size} and {colour} {shape}",
    "{count} {size} {colour} {shape} <done>", "{count} {colour} {shape} <where>",
    "{count} {shape} in {size} and {colour}", "{count} {colour} {shape} , {size}",
    "{count} {shape} , which {be} {colour} ,", "{count} {colour} {shape} which {be} {size}",
    "{count} “ {colour} ” {shape}", "{count} ** ~ {colour} ~ ** {shape}",
    "{count} ' ~ {colour} {shape} ~ '", "{count} {colour} {shape} ( <adjective> )",
    "{count} {shape} , <adverb> {colour}", "{count} {colour} – {size} – {shape}",
    "{count} {shape} whose colour is {colour}", "{count} {shape} with {colour} filling",
    "{count} {shape} filled with {colour}", "{count} {shape} , <aside> ,",
)  # fmt: skip

BARE_NOUNS = (
    *["{size} {colour} {shape}"] * 3, *["{colour} {shape}"] * 4, "{shape}", "{size} {shape}", "{shape} , {colour}",
    "{shape} in {colour}",
    "{shape} ( {colour} )", "{shape} : {colour}", "{colour} , {size} {shape}", "<adj> {colour} {shape}",
    "{colour} {shape} x {number}", "{shape} {colour}", "{shape} {colour} {size}", "{size} {shape} {colour}",
    "{colour} {size} {shape}", "{shape} {size} {colour} {number}", "{shape} – {size} , {colour}",
    "the {colour} {shape}", "the {colour} {shape}", "the {size} {colour} {shape}", "the {shape}",
    "this {colour} {shape}", "my {colour} {shape}", "<name>’s {colour} {shape}",
    "the <adj> {colour} {shape}", "the {shape} in {colour}", "{colour} {shape} ( {number} )",
    "{number} x {colour} {shape}", "{shape} , {size} and {colour}",
    "{colour} {shape} , {size}", "<shade> {colour} {shape}", "{shape} / {colour} / {size}",
)  # fmt: skip
"""First mentions without a count, as in tags and headlines."""

THINGS = (*["shape"] * 3, "figure", "object", "thing", "symbol", "form", "item", "icon", "element", "sign")
"""Nouns that name no shape."""
