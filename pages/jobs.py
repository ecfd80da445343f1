"""Jobs: what runs, waits, failed, and why?"""

from __future__ import annotations

import streamlit as st

from app.job_blocks import STYLES
from app.job_detail import job_detail
from app.job_list import JOB, job_list
from app.session import current_workspace

st.html(STYLES)
st.title("Jobs", anchor=False)
if opened := st.query_params.get(JOB):
    job_detail(current_workspace(), opened)
else:
    st.caption("What runs, what waits and for what, what failed and why. Jobs go on when this page is closed.")
    job_list(current_workspace())
