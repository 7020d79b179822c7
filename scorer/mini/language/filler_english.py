"""List English that says nothing about a scene: words by part of speech, and phrases and sentences made of them.

`<name>` stands for one of the alternatives of that name (`filler` fills it). None of the words is one that a scene's
facts are told with (`lexicon.visual_words`).
"""

WORDS: dict[str, str] = {
    "noun": """
        afternoon album answer apple apprentice archive arm atlas aunt autumn baker balcony ballad banana bank barn
        basket beach bear bed bell bench bicycle bird biscuit blanket boat bone book bottle bowl boy branch bread breeze
        brick bridge brother bucket builder bus butter button cabin cake calendar camera candle captain car carpet cart
        castle cat ceiling chair chalk chapter cheese chef child church cinema city class clock cloth cloud coat coffee
        coin collector comet contest corridor country cousin cow cup curtain customer dancer daughter day desk detail
        diary dinner doctor dog door dream dress driver duck editor egg engine evening exam exercise eye fabric face
        factory family farm farmer father feather fence festival field finger fire fish floor flower fog forest fork
        fountain fox friend fruit game garden gate ghost gift girl glass glove grandmother grass guest guitar hall
        hammer hand harbour hat hill history holiday home horse hospital hour house idea island jacket jar jewel job
        joke journey judge juice kettle key kitchen kite knife ladder lake lamp language law leaf lesson letter library
        light line lion lunch machine magazine market mat match meadow meal memory message mirror moment money monkey
        month moon morning mother mountain mouse museum music nature neighbour nest newspaper night noise note
        notebook nurse ocean office oven owner package page palace pan parent park party path pen pencil person
        phone piano pilot pillow pirate planet plant plate player pocket poem poet pond postcard potato price prince
        problem professor programme puppet puzzle question rabbit radio rain recipe record reporter rice river road
        robot rock roof room rope sailor salad sand school science screen sea season secret sentence shadow sheep shelf
        ship shirt shoe shop sister sky sleep snow soap song sound soup spider spoon spring stage stairs station
        stone storm story stranger street student suggestion summer sun supper table tailor tale teacher team
        telephone test theatre theory thought thread ticket tiger time toast tool tooth towel tower town toy train
        traveller tree trip truck tunnel umbrella uncle valley vase village violin visitor voice wall watch water
        weather wedding week wheel wind window winter wolf wood word work workshop world writer year zoo
    """,
    "medium": """
        image picture drawing sketch illustration graphic artwork painting poster print design composition scene photo
        canvas page sheet panel tile card slide figurine icon emblem logo doodle render snapshot thumbnail screenshot
        frame diagram cartoon collage exhibit piece work file view display layout arrangement board sample example
    """,
    "surface": """
        background backdrop paper canvas ground page sheet surface card cloth board wall field tabletop screen base
        cardboard fabric floor tile plane area foundation parchment
    """,
    "adjective": """
        absurd ancient appealing artificial attractive awkward basic beautiful bold boring brave bright brilliant busy
        calm careful careless charming cheap cheerful childish classic clean clear clever clumsy cold comfortable
        common complete cosy crisp curious cute dainty damp decent decorative delicate delightful dull eager easy
        elegant empty exact excellent exotic expensive fabulous faded faint familiar fancy fine flat fragile fresh
        friendly funny generous gentle glossy good gorgeous graceful grand handmade handsome happy harmless heavy honest
        humble ideal idle interesting jolly kind lazy light lively lonely lovely lucky mad magical matt merry mild
        modern modest mysterious narrow naughty neat neutral nice noisy normal obvious odd old ordinary original
        patient peaceful perfect playful pleasant polite poor popular precise pretty proper proud quaint quiet rare
        regular reliable rich rough rustic sad serious sharp shiny silent silly simple sleepy smart smooth soft solid
        special splendid steady sticky strange strict strong stunning stylish subtle sunny superb sweet tame tasteful
        tender terrible thick thin tidy tired traditional typical ugly unusual useful usual vague vivid warm weak weird
        wild wise witty wonderful worn young
    """,
    "shade": """
        bright dark light pale deep vivid dull soft strong rich pastel warm cool muted faded intense plain brilliant
        solid pure matt glossy electric dusty
    """,
    "adverb": """
        accidentally actually admittedly again already also always amusingly apparently arguably basically beautifully
        calmly carefully casually certainly clearly cleverly clumsily curiously decidedly definitely deliberately
        distinctly easily elegantly entirely essentially evidently eventually faintly finally frankly freshly
        fully gently gladly gracefully happily hastily honestly hopefully indeed initially instantly interestingly
        kindly lately lazily literally luckily mainly maybe merely mostly naturally neatly nicely normally now obviously
        occasionally oddly officially often once only openly originally perhaps plainly playfully politely possibly
        presumably previously probably promptly properly proudly quickly quietly quite randomly rarely rather really
        recently reportedly roughly sadly seemingly seriously silently simply slowly sometimes soon still strangely
        suddenly supposedly surely surprisingly thankfully today together tonight totally truly typically ultimately
        undoubtedly unexpectedly unusually usually vaguely very visibly warmly wonderfully yesterday
    """,
    "opener": """
        again also altogether anyway apparently basically besides certainly clearly curiously currently evidently
        finally first firstly frankly funnily furthermore generally great hello here hey hi hm hmm honestly however
        incidentally indeed interestingly lastly luckily meanwhile moreover naturally next now obviously oddly oh ok
        okay ooh overall perhaps plainly please presumably probably really regardless remarkably sadly second secondly
        simply so still strangely surely surprisingly then thus today typically um ultimately unsurprisingly wait well
        wow yep additionally likewise similarly admittedly nevertheless
    """,
    "shows": """
        shows depicts contains has displays presents features includes holds portrays reveals offers exhibits captures
        carries illustrates represents boasts consists|of demonstrates frames hosts bears gives|us comprises sports
        provides delivers pictures renders conveys showcases exposes
    """,
    "sees": """
        see notice spot find observe detect count recognise recognize discover perceive behold identify make|out catch
        view get note meet discern admire encounter distinguish can|see can|find could|see will|notice would|say
        may|spot should|see can|make|out have
    """,
    "made": """
        drew painted made sketched created printed added placed put coloured|in designed cut|out arranged doodled
        wanted ordered bought found imagined scribbled traced stamped pasted glued photographed produced rendered
        generated chose invented recorded posted uploaded sent drafted composed depicted hung dropped lost stuck
        assembled stencilled embroidered carved moulded framed requested forgot
    """,
    "done": """
        drawn painted made sketched created printed added placed put designed arranged depicted visible present
        shown displayed featured rendered pictured scattered seen located positioned found included given laid|out set
        stamped glued sitting resting floating lying standing hovering waiting hanging hiding portrayed noticeable
        traced presented captured kept stored pinned
    """,
    "sits": """
        sits/sit rests/rest floats/float lies/lie stands/stand hovers/hover appears/appear hangs/hang waits/wait
        lives/live hides/hide shines/shine sleeps/sleep dances/dance stays/stay remains/remain belongs/belong
        fits/fit can|be|found/can|be|found can|be|seen/can|be|seen dwells/dwell stands|out/stand|out
    """,
    "person": """
        somebody someone anybody everyone nobody|but|me the|artist the|painter the|author the|designer my|friend
        my|brother my|sister his|daughter her|son our|teacher the|child the|kid the|student the|photographer grandma
        grandpa mum dad mom my|boss the|neighbour the|illustrator the|intern the|machine the|printer the|creator
        the|user the|customer the|programmer the|algorithm whoever|made|it the|professor the|class people|here
        <name> <name> <name> the|<noun> the|<adjective>|<noun> my|<noun> our|<noun> the|<word>
    """,
    "viewer": """
        we you I people everyone|will viewers|will I|can you|can we|can they|will the|viewer|will the|eye|will
        observers|will visitors|may anyone|can you|might we|clearly you|should you'll we'll I|could
    """,
    "corner": "corner corner corner corner corner corner part area quarter quadrant region section end spot",
    "says": "says thinks claims believes insists mentions wrote remarks swears noticed reported told|me adds",
    "link": "and with plus and|also alongside beside near then accompanied|by next|to together|with followed|by",
    "name": """
        Aaron Abigail Adam Agnes Ahmed Alex Alice Amir Ana Andrew Anita Anna Anton Arthur Bella Ben Bruno Carla Carlos
        Chen Chloe Clara Dana Daniel David Diego Dina Elena Elif Emil Emma Erik Eva Fatima Felix Fiona Frank Gina Greta
        Hana Hans Harry Hugo Ida Igor Ines Ivan Jack Jana Jane Jin Joan John Jonas Julia Kai Karim Kate Kenji Lara Lars
        Lea Leo Lily Linda Liu Lucas Lucy Luis Luna Maja Marco Maria Mark Marta Max Maya Mei Mia Milan Mina Mohamed
        Nadia
        Nina Noah Nora Olga Oliver Omar Oscar Pablo Paul Pedro Peter Petra Priya Rahul Raj Rita Robert Rosa Samir Sara
        Sofia Sven Tara Theo Tim Tom Uma Vera Victor Wei Yara Yuki Zara Zoe
    """,
    "place": """
        Amsterdam Athens Berlin Bogota Boston Brno Cairo Chicago Delhi Dublin Geneva Hanoi Helsinki Istanbul Kyoto Lagos
        Lima Lisbon London Madrid Marseille Melbourne Milan Montreal Mumbai Nairobi Oslo Paris Prague Quito Rome Seoul
        Sydney Tallinn Tokyo Toronto Vienna Warsaw Zurich
    """,
}
"""Words separated by white space; `|` stands for a space inside one, `/` separates singular and plural."""

PHRASES: dict[str, tuple[str, ...]] = {
    "thing": (
        "the <noun>", "the <adjective> <noun>", "my <noun>", "your <noun>", "our <adjective> <noun>", "this <noun>",
        "that <noun>", "the <word>", "the <word> <noun>", "<name>’s <noun>", "every <noun>",
        "<adjective> <noun>", "the <noun> of <name>", "the <noun> in <place>", "old <word>", "<name>", "<word>",
    ),
    "where": (
        "in <place>", "at the <noun>", "near the <noun>", "behind the <noun>", "in the <noun>", "for the <noun>",
        "with <thing>", "without <thing>", "during the <noun>", "for <name>", "by <name>", "from <place>",
        "before <noun>",
        "after the <noun>", "about <thing>", "in <year>", "on <date>", "at <clock>", "like <thing>",
        "in <adjective> style",
        "between <thing> and <thing>", "inside <thing>", "despite the <noun>", "because of <thing>",
        "according to <name>",
        "with <adjective> <noun>", "<word> <word>", "the <adjective> way", "if you like", "as usual", "for once",
        "as far as I know", "to be <adjective>", "as <name> <says>", "so to speak", "of course", "for a change",
        "by chance",
    ),
    "start": (
        "in this <medium>", "in the <medium>", "on this <medium>", "on the <medium>", "in my <medium>",
        "in <name>’s <medium>",
        "within the <medium>", "looking at the <medium>", "looking closely", "at first glance", "as you can see",
        "as far as I can tell", "to be <adjective>", "to start with", "first of all", "for the record",
        "to my surprise",
        "if I am not mistaken", "without any doubt", "in short", "in other words", "by the way", "to sum up",
        "this time",
        "once again", "so far", "in <year>", "on <date>", "at <clock>", "last <noun>", "this <noun>", "every <noun>",
        "according to <thing>", "according to <name>", "thanks to <name>", "as <name> <says>", "<adverb> speaking",
        "<where>", "<where>", "<opener>", "<opener>", "<opener>", "<opener>", "<opener>", "<adverb>",
        "<word> <word>", "<word>",
        "dear <name>", "<name> , look", "guess what", "you see", "let me see", "believe it or not", "after all",
        "apart from that",
        "in the end", "strictly speaking", "from here", "ladies and gentlemen", "in my opinion",
        "on closer inspection",
    ),
    "aside": (
        "I think", "I guess", "it seems", "<adverb>", "<adverb>", "<adverb>", "as <name> <says>", "you know",
        "of course",
        "as always", "so to speak", "in fact", "for example", "<where>", "<where>", "if you look", "no doubt",
        "let us say",
        "I must say", "oh my", "<name> <says>", "<word> <word>",
    ),
    "that": (
        "I think that", "it seems that", "it looks like", "you could say that", "I would say", "<name> <says> that",
        "<person> <says>", "note that", "please note", "we know that", "<name> thought", "it is <adjective> that",
        "everyone knows that", "I am sure", "I <adverb> believe", "let us say that", "the <noun> <says> that",
        "remember that", "mind you ,", "it turns out that", "rumour has it that", "<thing> <says>", "it appears",
        "I can <adverb> say that", "do you see that", "<word> <says>",
    ),
    "look": (
        "look at", "look ,", "see", "notice", "consider", "imagine", "picture", "find", "behold", "check out", "take",
        "do not miss", "mind", "say hello to", "enjoy", "let us begin with", "think of", "describe", "mark",
        "guess what I see :", "here comes", "this is about", "caption :", "title :", "answer :", "description :",
        "note :",
        "alt text :", "content :", "summary :", "<word> :", "<word> <word> :", "<name> :", "subject :", "motif :",
        "fig. <number> :",
        "image <number> :", "<number> )", "<hashtag>", "<emoji>", "<adjective> :", "today’s <noun> :", "spotted :",
        "featuring",
        "presenting", "<word>ing", "<word>", "<word> <word>", "<word> <word> <word>", "<adverb> <word>",
        "<adjective> <medium> of", "<medium> of", "<medium> with", "drawing of", "close-up of", "vector art of",
        "photo :",
        "portrait of", "study of", "still life with", "<adverb> , see", "only", "simply", "<adverb>",
    ),
    "clause": (
        "<person> <made> <thing> <where>", "<thing> is <adjective>", "<thing> looks <adjective>",
        "<thing> was <adjective> <where>",
        "the <medium> is <adjective>", "the <medium> looks <adverb> <adjective>",
        "the <medium> <shows> <adjective> <noun>",
        "I like the <adjective> <noun>", "<person> <made> it <where>", "<name> <says> it is <adjective>",
        "we went to <place>",
        "it was <made-like> <where>", "everything is <adjective>", "everything looks <adjective> and <adjective>",
        "the style is <adverb> <adjective>", "the lines are <adjective>", "the edges look <adjective>",
        "I <adverb> like it",
        "it reminds me of <thing>", "it could be <thing>", "<person> must have been <adjective>",
        "the <noun> belongs to <name>",
        "this <medium> was <made-like> by <name>", "<where> <person> <made> <thing>", "what <adjective> <noun>",
        "the rest is <adjective>", "the rest of the <medium> is <adjective>", "the composition is <adjective>",
        "<viewer> <sees> <adjective> <noun>", "<thing> and <thing> are <adverb> <adjective>",
        "please <word> the <noun>",
        "you should <word> <where>", "the mood is <adjective>", "<adjective> <noun> everywhere",
        "it makes me <adjective>",
        "<name> and <name> <made> <thing>", "<words>", "<words>", "<thing> <word> <thing>",
        "<word> <word> the <word>",
        "we <word> the <adjective> <word>", "it costs <number> dollars", "it took <number> hours",
        "<start> it is <adjective>",
        "there is much to say about <thing>", "that is all I know", "that was <adjective>", "that’s it",
        "that is everything",
        "who would have thought", "I have no idea why", "thank you , <name>", "have <adjective> <noun>", "see <url>",
        "contact <name> at <number>", "the <noun> weighs <number> kg", "copyright <year> <name>",
        "<hashtag> <hashtag>",
        "taken with <word> <number>", "it has been <number> years",
        "the <noun> , the <noun> and the <noun> are <adjective>",
        "it is a <adjective> <noun>", "it looks like a <noun>", "I would call it a <adjective> <noun>",
        "<name> has a <noun>", "what a <adjective> <noun>",
        "there must be a <noun>", "<person> needs a <adjective> <noun>", "it makes a <adjective> <noun>",
        "<thing> wants a <word>", "that's a <noun> for you",
        "don't ask <name>", "it isn't <adjective>", "I can't <word> it", "nobody's <noun> is <adjective>",
        "we'll <word> it <where>", "he's <adjective> , she's <adjective>",
        "no people are in the <medium>", "no text can be read", "the <medium> has no frame",
        "rated <number> out of 10",
    ),
    "made-like": (
        "made", "painted", "drawn", "printed", "designed", "created", "finished", "sold", "found", "rendered",
        "taken",
    ),
    "words": (
        "<word> <word>", "<word> <word> <word>", "<word> <word> <word> <word>", "<word> <word> <word> <word> <word>",
        "<word> the <word> <word>", "<word> of <word>", "<word> , <word> and <word>", "<pseudo> <pseudo>",
        "<word> <number> <word>", "to <word> or to <word>", "<word> <adverb> <word>",
        "<pseudo> <word> <pseudo> <word>",
    ),
    "meeting": (
        "a <medium> of", "a <adjective> <medium> of", "a <medium> with", "a <medium> showing",
        "a <adjective> <medium> that <shows>",
        "a <noun> <shows>", "a <noun> <made>", "a <adjective> <noun> with", "one <medium> ,", "one can see",
        "one sees",
        "an <medium> of", "an image of", "an image with", "an illustration of", "a look at", "a view of",
    ),
}  # fmt: skip
"""Alternatives of equal weight. Those of `meeting` begin with words that a count may be told with, too."""
