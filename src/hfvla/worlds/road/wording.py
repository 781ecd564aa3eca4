"""Questions and choices in Vietnamese and English."""

from __future__ import annotations

__all__ = ["LANGUAGES", "QUESTIONS", "WHEN", "word"]

LANGUAGES = ("vi", "en")

WHEN: dict[str, dict[str, str]] = {
    "en": {
        "bus": "the bus",
        "truck": "the truck",
        "car": "the car",
        "motorbike": "the motorbike",
        "pedestrian": "the pedestrian",
    },
    "vi": {
        "bus": "xe buýt",
        "truck": "xe tải",
        "car": "ô tô con",
        "motorbike": "xe máy",
        "pedestrian": "người đi bộ",
    },
}
"""Who crosses, as a question names them."""

QUESTIONS: dict[str, dict[str, tuple[str, ...]]] = {
    "light": {
        "en": (
            "What colour is the traffic light when {who} crosses?",
            "When {who} crosses in front of us, which light is on?",
        ),
        "vi": ("Khi {who} băng qua, đèn giao thông màu gì?", "Đèn giao thông đang màu gì lúc {who} băng qua?"),
    },
    "limit": {
        "en": (
            "What is the speed limit when {who} crosses?",
            "When {who} crosses in front of us, which limit does the sign show?",
        ),
        "vi": (
            "Khi {who} băng qua, biển báo giới hạn tốc độ là bao nhiêu?",
            "Tốc độ tối đa cho phép lúc {who} băng qua là bao nhiêu?",
        ),
    },
    "side": {
        "en": ("From which side does {who} come?", "Which side does {who} cross from?"),
        "vi": ("{who} đi tới từ phía nào?", "{who} băng qua từ bên nào?"),
    },
    "town": {
        "en": (
            "Which town does the board name when {who} crosses?",
            "When {who} crosses, which name is on the green board?",
        ),
        "vi": ("Khi {who} băng qua, bảng chỉ dẫn ghi tên nơi nào?", "Bảng xanh ghi tên gì lúc {who} băng qua?"),
    },
    "weather": {
        "en": ("What are the conditions on this road?", "How are the light and the weather in the clip?"),
        "vi": ("Điều kiện thời tiết và ánh sáng trong video là gì?", "Trời trong video như thế nào?"),
    },
    "roadside": {
        "en": ("What lies beside the road?", "What can be seen on both sides of the road?"),
        "vi": ("Hai bên đường là gì?", "Bên cạnh con đường có gì?"),
    },
    "lanes": {
        "en": ("How many lanes does the road have?",),
        "vi": ("Đường có bao nhiêu làn xe?",),
    },
    "oncoming": {
        "en": ("How many cars come towards us in the whole clip?",),
        "vi": ("Trong cả video có bao nhiêu ô tô đi ngược chiều?",),
    },
    "first": {
        "en": ("Who crosses first?",),
        "vi": ("Ai hoặc xe nào băng qua đầu tiên?",),
    },
    "last": {
        "en": ("Who crosses last?",),
        "vi": ("Ai hoặc xe nào băng qua sau cùng?",),
    },
    "order": {
        "en": ("As which one does {who} cross?",),
        "vi": ("{who} băng qua thứ mấy?",),
    },
}

_WORDS: dict[str, dict[str, str]] = {
    "en": {
        "red": "Red", "yellow": "Yellow", "green": "Green", "left": "Left", "right": "Right",
        "day": "Clear day", "night": "Night", "rain": "Rain", "fog": "Fog",
        "houses": "Houses", "forest": "Forest", "fields": "Fields", "sea": "Sea",
        "bus": "Bus", "truck": "Truck", "car": "Car", "motorbike": "Motorbike",
        "pedestrian": "Pedestrian", "1st": "First", "2nd": "Second", "3rd": "Third", "4th": "Fourth",
    },
    "vi": {
        "red": "Đỏ", "yellow": "Vàng", "green": "Xanh", "left": "Bên trái", "right": "Bên phải",
        "day": "Ban ngày, trời quang", "night": "Ban đêm", "rain": "Trời mưa", "fog": "Sương mù",
        "houses": "Nhà cửa", "forest": "Rừng cây", "fields": "Cánh đồng", "sea": "Biển",
        "bus": "Xe buýt", "truck": "Xe tải", "car": "Ô tô con", "motorbike": "Xe máy", "pedestrian": "Người đi bộ",
        "1st": "Đầu tiên", "2nd": "Thứ hai", "3rd": "Thứ ba", "4th": "Thứ tư",
    },
}  # fmt: skip


def word(value: str, language: str) -> str:
    """Return a value as a choice shows it; numbers and names stay as they are."""
    return _WORDS[language].get(value, value)
