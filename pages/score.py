"""Pool and scores: which candidates are there, and what does my student make of them?"""

from __future__ import annotations

import streamlit as st

st.title("Pool and scores", anchor=False)
st.caption("Which candidates are there, and what does my student make of them?")
