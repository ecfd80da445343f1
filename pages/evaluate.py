"""Evaluate: is A better than B, by how much, on which problems, can I trust the grader?"""

from __future__ import annotations

import streamlit as st

st.title("Evaluate", anchor=False)
st.caption("Is A better than B, by how much, on which problems, can I trust the grader?")
