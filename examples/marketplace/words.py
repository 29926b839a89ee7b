"""What customers write in reviews: phrases in three languages by how content they are; composed by `market`."""

from typing import Final

AUTHORS: Final = (
    "Anna", "Jonas", "Миша", "Lena", "Piotr", "Ольга", "Tom", "Sofia", "Karl", "Ирина", "Marek", "Eva", "Luca", "Ines",
    "Дмитрий", "Hanna", "Oskar", "Julia", "Nils", "Clara", "Viktor", "Maja", "Felix", "Таня", "Ben", "Greta",
)  # fmt: skip

Phrases = tuple[tuple[str, ...], ...]
"""What a review begins with, goes on with and ends with."""

HAPPY: Final[dict[str, Phrases]] = {
    "en": (
        (
            "Arrived two days early and well packed.", "Exactly as described.", "Bought it for my sister, and now I want one.",
            "After a month of daily use I can say something about it.", "My third one from this shop.",
            "Delivery was quick, the courier friendly.", "I was sceptical at that price.", "Came in a plain box, no plastic at all.",
            "Ordered on Monday, used it on Wednesday.", "Replaced one that had served me for ten years.",
        ),
        (
            "It feels solid and nothing rattles.", "The colour is warmer than in the pictures, and I like that.",
            "It does one thing, and it does it well.", "The instructions are short and in plain words.",
            "Works as on the first day.", "Even my father got along with it at once.", "Cleaning takes a minute.",
            "The size is just right for two.", "The details are thought through.", "Light, quiet and easy to put away.",
            "It survived a rough weekend.", "The seams and edges are done with care.",
        ),
        (
            "I would buy it again.", "Recommended.", "Worth the money.", "No complaints so far.", "A full five stars from me.",
            "The seller answered my question within an hour.", "We take it everywhere now.", "Thank you!",
        ),
    ),
    "de": (
        ("Schnelle Lieferung, sauber verpackt.", "Genau wie beschrieben.", "Nach vier Wochen Gebrauch mein Urteil.",
         "Als Geschenk gekauft und selbst behalten.", "Zweiter Kauf bei diesem Händler."),
        ("Fühlt sich wertig an.", "Macht, was es soll, ohne Schnickschnack.", "Die Anleitung ist kurz und verständlich.",
         "Leichter, als ich dachte.", "Die Verarbeitung ist tadellos."),
        ("Klare Empfehlung.", "Gerne wieder.", "Sein Geld wert.", "Danke an den Verkäufer!"),
    ),
    "ru": (
        ("Пришло быстро, упаковано хорошо.", "Всё как в описании.", "Пользуюсь уже месяц.", "Брала в подарок маме.",
         "Заказываю здесь второй раз."),
        ("Качество отличное, ничего не скрипит.", "Размер удобный, весит мало.", "Инструкция понятная.",
         "Моется легко.", "Собрано аккуратно."),
        ("Рекомендую.", "Своих денег стоит.", "Спасибо продавцу!", "Куплю ещё."),
    ),
}  # fmt: skip

UNHAPPY: Final[dict[str, Phrases]] = {
    "en": (
        (
            "The parcel arrived damaged, one corner was crushed.", "The box was torn open when it came.",
            "Waited three weeks for it.", "The wrong colour was in the box.", "It stopped working after four days.",
            "Arrived without the manual and without a cable.", "Smaller than the pictures make you think.",
            "The courier threw it over the fence and it broke.",
        ),
        (
            "A seam came loose on the first evening.", "It smells of plastic, even after airing.", "The lid does not close any more.",
            "One part was scratched and another one missing.", "It is louder than the description says.",
            "Support sent me a form instead of an answer.", "The switch sticks.", "I had to glue it myself.",
        ),
        (
            "I want my money back.", "It goes back tomorrow.", "Two stars because the refund came quickly.",
            "Not again.", "A pity, the idea is good.", "I expected more at this price.",
        ),
    ),
    "de": (
        ("Das Paket kam beschädigt an.", "Drei Wochen gewartet.", "Falsche Farbe geliefert.", "Nach vier Tagen defekt."),
        ("Eine Naht ist sofort aufgegangen.", "Der Deckel schließt nicht mehr.", "Riecht stark nach Plastik."),
        ("Geht zurück.", "Nie wieder.", "Schade, die Idee ist gut."),
    ),
    "ru": (
        ("Посылка пришла помятая.", "Ждали три недели.", "Прислали не тот цвет.", "Сломалось через четыре дня."),
        ("Шов разошёлся в первый же вечер.", "Крышка больше не закрывается.", "Сильно пахнет пластиком."),
        ("Верните деньги.", "Больше не куплю.", "Жаль, задумка хорошая."),
    ),
}  # fmt: skip

LANGUAGES: Final = {"north": ("en", "en", "en", "en", "de"), "south": ("en", "en", "en", "en", "ru")}
"""As often as they occur."""

ANSWERS: Final = (
    "We are sorry. A replacement is on its way to you.",
    "Thank you for the kind words!",
    "Please write to us with your order number, we refund it today.",
    "That should not happen. We have spoken with the carrier.",
    "We have passed this on to the workshop.",
)

TOLD_TODAY: Final = {
    "north": ("Fjell 2 tent", "The zip of the entrance tore on the first night and the rain came in."),
    "south": ("Amber 1.7 electric kettle", "It leaks at the bottom, the whole worktop was under water."),
}
"""One review a seller that is written in the day that passes: what the example searches for afterwards."""
