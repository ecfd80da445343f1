"""Jobs: what runs, waits, failed, and why?"""

from __future__ import annotations

import streamlit as st

st.title("Jobs", anchor=False)
st.caption("What runs, waits, failed, and why?")
