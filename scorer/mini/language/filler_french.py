"""List French that says nothing about a scene, as `filler_english` does."""

WORDS: dict[str, str] = {
    "fr-noun": """
        papier tableau dessin matin soir jardin chat chien livre village bateau moulin gâteau musée peintre cahier lundi
        train bureau voyage vent soleil nuage pont marché miroir fromage crayon stylo mur château cirque rêve monde
        cadre motif sujet contour style travail résultat
    """,
    "fr-adjective": """
        simple magnifique tranquille drôle étrange superbe calme bizarre jeune tendre utile rare moderne classique
        propre sage timide large facile sobre unique mobile fragile sympathique agréable
    """,
    "fr-person": """
        quelqu’un l’artiste ma|sœur mon|frère mon|oncle notre|voisin l’enfant l’élève la|machine ma|mère mon|ami
        <name> <name> <name> le|peintre le|<fr-noun>
    """,
    "fr-start": """
        ensuite d’abord enfin bref aujourd’hui hier parfois souvent en|effet bien|sûr en|fait à|vrai|dire peut-être
        ici voilà heureusement à|<place> en|<year> selon|<name> comme|toujours de|près pour|finir <word>
    """,
    "fr-where": "à|<place> pour|<name> avec|<name> en|<year> chez|<name> sans|<fr-noun> pendant|le|<fr-noun>",
}
PHRASES: dict[str, tuple[str, ...]] = {
    "fr-clause": (
        "c’est <fr-adjective>", "c’est tout", "le <fr-noun> est <fr-adjective>", "l’image est très <fr-adjective>",
        "<fr-person> aime le <fr-noun>",
        "je ne sais pas pourquoi", "tout est <fr-adjective>", "<fr-start> , c’est <fr-adjective>",
        "le <fr-noun> vient de <place>", "merci , <name>",
        "on dirait le <fr-noun> de <name>", "<fr-person> habite à <place>", "le style est <fr-adjective>",
        "<word> <word> <word>",
        "quel <fr-noun> <fr-adjective>", "il fait <fr-adjective>", "le <fr-noun> et le <fr-noun>",
    ),
}  # fmt: skip
