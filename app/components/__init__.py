"""Parts of pages that Streamlit has not: charts that change in place, sliders that act while they are dragged."""
