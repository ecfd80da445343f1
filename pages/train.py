"""Train: is this the run I think it is, will it fit, how is it going?"""

from __future__ import annotations

import streamlit as st

st.title("Train", anchor=False)
st.caption("Is this the run I think it is, will it fit, how is it going?")
